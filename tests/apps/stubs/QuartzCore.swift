// The declarations of Apple's QuartzCore that apps/ios uses (CoreVideo.swift says why).
import Foundation

open class CALayer: NSObject {}
