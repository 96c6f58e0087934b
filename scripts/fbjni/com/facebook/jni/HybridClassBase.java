package com.facebook.jni;

/** Stands in for fbjni's. */
public abstract class HybridClassBase extends HybridData {}
