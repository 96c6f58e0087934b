package android.graphics;

/** What the app calls of it, of Android 8. */
public abstract class ColorSpace {
    ColorSpace() {}

    public static native ColorSpace get(Named name);

    public enum Named {
        SRGB
    }
}
