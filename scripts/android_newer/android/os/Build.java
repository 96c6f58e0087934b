package android.os;

/** What the app reads of it, up to Android 12. Nothing is a constant that a compiler may copy. */
public class Build {
    public static final String HARDWARE = read();
    public static final String MANUFACTURER = read();
    public static final String MODEL = read();
    public static final String SOC_MODEL = read();
    public static final String[] SUPPORTED_ABIS = {read()};

    private static native String read();

    public static class VERSION {
        public static final String RELEASE = read();
        public static final int SDK_INT = read().length();
    }

    public static class VERSION_CODES {
        public static final int Q = 29;
        public static final int S = 31;
    }
}
