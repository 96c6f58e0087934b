// Never run by us (../README.md): the tests compile the same sources with kotlinc against Android 6's stubs.
plugins {
    id("com.android.library")
}

// by which a project that includes this build asks for it (docs/apps.md)
group = "org.lavitedge"
version = "0.2.0"

android {
    namespace = "org.lavitedge.classifier"
    compileSdk = 35
    defaultConfig {
        minSdk = 26
        consumerProguardFiles("consumer-rules.pro")
    }
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
    api(project(":core"))
    implementation("org.pytorch:executorch-android:1.4.1") // brings androidx.core, fbjni and SoLoader's nativeloader
}
