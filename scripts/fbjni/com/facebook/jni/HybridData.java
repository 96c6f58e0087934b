package com.facebook.jni;

import com.facebook.soloader.nativeloader.NativeLoader;
import java.lang.ref.PhantomReference;
import java.lang.ref.ReferenceQueue;
import java.util.Collections;
import java.util.IdentityHashMap;
import java.util.Set;

/** Stands in for fbjni's: an object of C++, which goes when its owner in Java says so, or is gone itself. */
public class HybridData {
    static {
        NativeLoader.loadLibrary("fbjni");
    }

    private final Destructor mDestructor = new Destructor(this);

    public synchronized void resetNative() {
        mDestructor.destruct();
    }

    public boolean isValid() {
        return mDestructor.mNativePointer != 0;
    }

    public static class Destructor extends PhantomReference<Object> {
        private static final ReferenceQueue<Object> GONE = new ReferenceQueue<>();
        // what is not held here is never put into the queue
        private static final Set<Destructor> ALL = Collections.synchronizedSet(Collections.newSetFromMap(new IdentityHashMap<>()));

        static {
            Thread thread = new Thread(Destructor::sweep, "HybridData");
            thread.setDaemon(true);
            thread.start();
        }

        private volatile long mNativePointer; // fbjni writes it

        Destructor(Object owner) {
            super(owner, GONE);
            ALL.add(this);
        }

        private static void sweep() {
            while (true) {
                try {
                    ((Destructor) GONE.remove()).destruct();
                } catch (InterruptedException ignored) { // it goes on
                }
            }
        }

        synchronized void destruct() {
            if (mNativePointer != 0) deleteNative(mNativePointer);
            mNativePointer = 0;
            ALL.remove(this);
        }

        static native void deleteNative(long pointer);
    }
}
