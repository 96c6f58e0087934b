package com.facebook.jni.annotations;

/** Stands in for fbjni's. */
public @interface DoNotStrip {}
