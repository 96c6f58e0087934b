// The declarations of Apple's UIKit that apps/ios uses (CoreVideo.swift says why).
@_exported import Foundation
import QuartzCore

@MainActor open class UIView: NSObject {
    open class var layerClass: AnyClass { fatalError() }
    public var layer: CALayer { fatalError() }
}
@MainActor public final class UIDevice: NSObject {
    public enum BatteryState: Int, Sendable { case unknown, unplugged, charging, full }
    public class var current: UIDevice { fatalError() }  // objc: currentDevice
    public var isBatteryMonitoringEnabled = false
    public var batteryState: BatteryState { fatalError() }
    public var batteryLevel: Float { fatalError() }
}
@MainActor public final class UIApplication: NSObject {
    public class var shared: UIApplication { fatalError() }  // objc: sharedApplication
    public static let openSettingsURLString = ""
    public var isIdleTimerDisabled = false
}
