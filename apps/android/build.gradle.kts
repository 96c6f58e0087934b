// Versions of the plugins that the modules name. Kotlin 2.4 needs R8 9.1.29, which the Android plugin has since 9.2, and that needs
// Gradle 9.4.1 (gradle/wrapper). The Android plugin compiles Kotlin itself, with the version that is named here.
plugins {
    id("com.android.application") version "9.2.1" apply false
    id("com.android.library") version "9.2.1" apply false
    id("org.jetbrains.kotlin.jvm") version "2.4.20" apply false
}
