package android.graphics;

import java.io.InputStream;

/** What the app calls of it, up to Android 8. */
public class BitmapFactory {
    public static native Bitmap decodeStream(InputStream stream, Rect padding, Options options);

    public static class Options {
        public boolean inJustDecodeBounds;
        public ColorSpace inPreferredColorSpace;
        public int inSampleSize;
        public int outHeight;
        public int outWidth;
    }
}
