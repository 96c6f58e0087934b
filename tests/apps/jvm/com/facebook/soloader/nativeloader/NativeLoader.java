package com.facebook.soloader.nativeloader;

/** Stands in for SoLoader's: a test says where the library lies. */
public class NativeLoader {
    public static boolean isInitialized() {
        return true;
    }

    public static void init(NativeLoaderDelegate delegate) {}

    public static boolean loadLibrary(String name) {
        System.load(System.getProperty("lavit.library." + name));
        return true;
    }
}
