// Never run by us (../README.md): the tests compile the same sources with kotlinc.
plugins {
    alias(libs.plugins.kotlin.jvm)
}

kotlin {
    compilerOptions {
        jvmTarget.set(org.jetbrains.kotlin.gradle.dsl.JvmTarget.JVM_11)
        freeCompilerArgs.addAll("-Xjdk-release=11", "-progressive")
        allWarningsAsErrors.set(true)
    }
}

java {
    sourceCompatibility = JavaVersion.VERSION_11
    targetCompatibility = JavaVersion.VERSION_11
}

// the tests read files that tests/apps/test_android_core.py makes; give their folders as -Dlavit.golden=... and so on
tasks.test {
    useJUnit()
    for (name in listOf("golden", "frames", "artifact", "schema", "out")) {
        System.getProperty("lavit.$name")?.let { systemProperty("lavit.$name", it) }
    }
}

dependencies {
    testImplementation(libs.junit)
    testImplementation(libs.kotlin.test.junit)
}
