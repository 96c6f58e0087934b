// Never run by us (../README.md): scripts/android_apk.py does the same with the tools below Gradle.
plugins {
    alias(libs.plugins.android.application)
    alias(libs.plugins.kotlin.android)
}

android {
    namespace = "org.lavitedge.app"
    compileSdk = libs.versions.targetSdk.get().toInt()
    defaultConfig {
        applicationId = "org.lavitedge.app"
        minSdk = libs.versions.minSdk.get().toInt()
        targetSdk = libs.versions.targetSdk.get().toInt()
        versionCode = 1
        versionName = libs.versions.lavit.edge.get()
        buildConfigField("String", "EXECUTORCH_VERSION", "\"${libs.versions.executorch.get()}\"")
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
        jvmTarget.set(org.jetbrains.kotlin.gradle.dsl.JvmTarget.JVM_11)
        freeCompilerArgs.add("-progressive")
    }
}

dependencies {
    implementation(project(":classifier"))
    testImplementation(libs.junit)
    testImplementation(libs.kotlin.test.junit)
}
