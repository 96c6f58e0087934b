package com.facebook.soloader.nativeloader;

/** Stands in for SoLoader's. */
public interface NativeLoaderDelegate {}
