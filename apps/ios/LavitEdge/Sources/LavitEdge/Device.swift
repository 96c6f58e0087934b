import Foundation

/// What a report says of this device.
public enum Device {
    /// Battery and mains, which only UIKit tells; all nil elsewhere.
    public struct Power: Equatable, Sendable {
        /// Whether it is charging or full.
        public let onMains: Bool?
        /// Of 1000.
        public let batteryPermille: Int?

        /// What UIDevice says.
        public init(onMains: Bool? = nil, batteryPermille: Int? = nil) {
            (self.onMains, self.batteryPermille) = (onMains, batteryPermille)
        }
    }

    /// Whether the system asks for less work, since the device is too warm.
    public static var isHot: Bool { System.thermal == "serious" || System.thermal == "critical" }

    /// The field `device` of a report.
    static func facts() -> JSON {
        let process = ProcessInfo.processInfo
        let version = process.operatingSystemVersion
        #if targetEnvironment(simulator)
            let simulator: String? = "iOS Simulator"
        #else
            let simulator: String? = nil
        #endif
        return [
            "name": JSON(name()),
            "kind": JSON(kind()),
            "os": JSON(system),
            "os_version": .string("\(version.majorVersion).\(version.minorVersion).\(version.patchVersion)"),
            "arch": JSON(architecture),
            "cpu": JSON(System.text("machdep.cpu.brand_string")),
            "cpu_features": System.cpuFeatures(),
            "cores": .int(process.activeProcessorCount),
            "memory_bytes": .int(Int(process.physicalMemory)),
            "emulated": .bool(simulator != nil),
            "emulator": JSON(simulator),
        ]
    }

    /// The device's state now, as `conditions.before` and `.after` have it.
    static func condition(_ power: Power) -> JSON {
        [
            "power": JSON(power.onMains.map { $0 ? "mains" : "battery" }),
            "battery_permille": JSON(power.batteryPermille),
            "low_power": JSON(System.lowPower),
            "thermal": JSON(System.thermal),
            "temperature_millicelsius": nil,
            "governor": nil,
            "load_permille": JSON(load()),
        ]
    }

    private static func name() -> String? {
        // a Mac's hw.machine is its architecture, a phone's hw.model a board
        System.text(system == "iOS" ? "hw.machine" : "hw.model").map { "Apple \($0)" }
    }

    private static func kind() -> String? {
        guard system == "iOS" else { return "computer" }
        let name = System.text("hw.machine") ?? ""
        return name.hasPrefix("iPhone") ? "phone" : name.hasPrefix("iPad") ? "tablet" : nil
    }

    private static func load() -> Int? {
        var average = 0.0
        guard getloadavg(&average, 1) == 1 else { return nil }
        return Int((average * 1000 / Double(ProcessInfo.processInfo.activeProcessorCount)).rounded())
    }

    private static var system: String? {
        #if os(iOS)
            "iOS"
        #elseif os(macOS)
            "macOS"
        #elseif os(Linux)
            "Linux"
        #else
            nil
        #endif
    }

    private static var architecture: String? {
        #if arch(arm64)
            "aarch64"
        #elseif arch(x86_64)
            "x86_64"
        #else
            nil
        #endif
    }
}
