import Foundation

/// What only Apple's systems tell, and nil elsewhere. The first half of this file has never been compiled: Linux has no Darwin module
/// (apps/ios/README.md).
enum System {
    #if canImport(Darwin)
        static var lowPower: Bool? { ProcessInfo.processInfo.isLowPowerModeEnabled }

        static var thermal: String? {
            switch ProcessInfo.processInfo.thermalState {
            case .nominal: "nominal"
            case .fair: "fair"
            case .serious: "serious"
            case .critical: "critical"
            @unknown default: nil
            }
        }

        /// A text that sysctl knows by this name.
        static func text(_ name: String) -> String? {
            var size = 0
            guard sysctlbyname(name, nil, &size, nil, 0) == 0, size > 1 else { return nil }
            var bytes = [UInt8](repeating: 0, count: size)
            guard sysctlbyname(name, &bytes, &size, nil, 0) == 0 else { return nil }
            return String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
        }

        /// The field `device.cpu_features` of a report.
        static func cpuFeatures() -> JSON {
            #if arch(arm64)
                let flags = ["bf16": "BF16", "dotprod": "DotProd", "fp16": "FP16", "i8mm": "I8MM", "sme": "SME"]
                var found = ["neon"]
                for (feature, flag) in flags {
                    var value: Int32 = 0
                    var size = MemoryLayout<Int32>.size
                    if sysctlbyname("hw.optional.arm.FEAT_\(flag)", &value, &size, nil, 0) == 0, value == 1 {
                        found.append(feature)
                    }
                }
                return .array(found.sorted().map { .string($0) })
            #else
                return .null
            #endif
        }

        /// The field `memory` of a report: the most that this process has held.
        static func memory() -> JSON {
            var info = task_vm_info_data_t()
            var count = mach_msg_type_number_t(MemoryLayout<task_vm_info_data_t>.size / MemoryLayout<natural_t>.size)
            let result = withUnsafeMutablePointer(to: &info) { pointer in
                pointer.withMemoryRebound(to: integer_t.self, capacity: Int(count)) {
                    task_info(mach_task_self_, task_flavor_t(TASK_VM_INFO), $0, &count)
                }
            }
            guard result == KERN_SUCCESS else { return ["peak_bytes": nil, "source": nil] }
            return ["peak_bytes": .int(Int(info.ledger_phys_footprint_peak)), "source": "phys_footprint"]
        }
    #else
        static let lowPower: Bool? = nil
        static let thermal: String? = nil

        static func text(_ name: String) -> String? { nil }

        static func cpuFeatures() -> JSON { .null }

        static func memory() -> JSON {
            let status = (try? String(contentsOfFile: "/proc/self/status", encoding: .utf8)) ?? ""
            let line = status.split(separator: "\n").first { $0.hasPrefix("VmHWM:") }
            guard let kilobytes = line?.split(separator: " ").compactMap({ Int($0) }).first else {
                return ["peak_bytes": nil, "source": nil]
            }
            return ["peak_bytes": .int(kilobytes * 1024), "source": "VmHWM"]
        }
    #endif
}
