// Never run by us (../README.md): scripts/android_apk.py does the same with the tools below Gradle, and reads versions here.
plugins {
    id("com.android.application")
}

android {
    namespace = "org.lavitedge.app"
    compileSdk = 35
    defaultConfig {
        applicationId = "org.lavitedge.app"
        minSdk = 26
        targetSdk = 35
        versionCode = 1
        versionName = "0.2.0"
        buildConfigField("String", "EXECUTORCH_VERSION", "\"1.4.1\"")
        ndk { abiFilters += listOf("arm64-v8a", "x86_64") }
    }
    buildFeatures { buildConfig = true }
    buildTypes {
        release {
            isMinifyEnabled = true
            isShrinkResources = true
            proguardFiles(getDefaultProguardFile("proguard-android-optimize.txt"))
            signingConfig = signingConfigs.getByName("debug") // your own, before you hand it on
        }
    }
    androidResources { noCompress += "pte" }
    compileOptions {
        sourceCompatibility = JavaVersion.VERSION_11
        targetCompatibility = JavaVersion.VERSION_11
    }
}

kotlin {
    compilerOptions {
        freeCompilerArgs.add("-progressive")
    }
}

dependencies {
    implementation(project(":classifier"))
    testImplementation("junit:junit:4.13.2")
    testImplementation("org.jetbrains.kotlin:kotlin-test-junit:2.4.20")
}
