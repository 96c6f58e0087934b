package com.facebook.soloader.nativeloader;

/** Stands in for SoLoader's: libraries are where the system looks for them, as its own SystemDelegate has it. */
public class NativeLoader {
    public static boolean isInitialized() {
        return true;
    }

    public static void init(NativeLoaderDelegate delegate) {}

    public static boolean loadLibrary(String name) {
        System.loadLibrary(name);
        return true;
    }
}
