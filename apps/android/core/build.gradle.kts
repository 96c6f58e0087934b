// Never run by us (../README.md): the tests compile the same sources with kotlinc.
plugins {
    id("org.jetbrains.kotlin.jvm")
}

// as the classifier's
group = "org.lavitedge"
version = "0.2.0"

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
    testImplementation("junit:junit:4.13.2")
    testImplementation("org.jetbrains.kotlin:kotlin-test-junit:2.4.20")
}
