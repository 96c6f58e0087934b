// The declarations of Apple's CoreGraphics that apps/ios uses (CoreVideo.swift says why).
@_exported import Foundation

public typealias CFString = NSString
public typealias CFDictionary = NSDictionary
public typealias CFData = NSData
public typealias CFAllocator = NSObject

public final class CGImage {  // objc: CGImageCreate
    public var width: Int { fatalError() }  // objc: CGImageGetWidth
    public var height: Int { fatalError() }  // objc: CGImageGetHeight
}

public final class CGColorSpace {  // objc: CGColorSpaceCreateWithName
    public init?(name: CFString) { fatalError() }  // objc: CGColorSpaceCreateWithName
    public nonisolated(unsafe) static let sRGB: CFString = ""  // objc: kCGColorSpaceSRGB
}

public enum CGImageAlphaInfo: UInt32, Sendable {
    case noneSkipLast = 5  // objc: kCGImageAlphaNoneSkipLast
}

public final class CGContext {  // objc: CGBitmapContextCreate
    public init?(  // objc: CGBitmapContextCreate
        data: UnsafeMutableRawPointer?, width: Int, height: Int, bitsPerComponent: Int, bytesPerRow: Int, space: CGColorSpace,
        bitmapInfo: UInt32
    ) { fatalError() }
    public func draw(_ image: CGImage, in rect: CGRect) { fatalError() }  // objc: CGContextDrawImage
}
