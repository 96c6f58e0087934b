package android.os;

/** What the app calls of it, up to Android 10. */
public final class PowerManager {
    public static final int THERMAL_STATUS_SEVERE = 3;

    PowerManager() {}

    public native boolean isPowerSaveMode();

    public native int getCurrentThermalStatus();

    public native void addThermalStatusListener(OnThermalStatusChangedListener listener);

    public native void removeThermalStatusListener(OnThermalStatusChangedListener listener);

    public interface OnThermalStatusChangedListener {
        void onThermalStatusChanged(int status);
    }
}
