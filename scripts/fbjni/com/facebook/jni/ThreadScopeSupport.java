package com.facebook.jni;

/** Stands in for fbjni's: C++ runs a function with this class on the stack. */
public class ThreadScopeSupport {
    private static void runStdFunction(long function) {
        runStdFunctionImpl(function);
    }

    private static native void runStdFunctionImpl(long function);
}
