package com.facebook.jni;

/** Stands in for fbjni's: an object of C++ and its Java owner. */
public class HybridData {
    private long pointer; // to a Module of ../../../executorch_jni.cpp

    HybridData(long pointer) {
        this.pointer = pointer;
    }

    public boolean isValid() {
        return pointer != 0;
    }

    public void resetNative() {
        if (pointer != 0) release(pointer);
        pointer = 0;
    }

    private static native void release(long pointer);
}
