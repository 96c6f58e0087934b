// The declarations of Apple's ImageIO that apps/ios uses (CoreVideo.swift says why).
import CoreGraphics

public final class CGImageSource {}  // objc: CGImageSourceCreateWithData
public func CGImageSourceCreateWithData(_ data: CFData, _ options: CFDictionary?) -> CGImageSource? { fatalError() }
public func CGImageSourceCreateThumbnailAtIndex(_ source: CGImageSource, _ index: Int, _ options: CFDictionary?) -> CGImage? {
    fatalError()
}
public nonisolated(unsafe) let kCGImageSourceCreateThumbnailFromImageAlways: CFString = ""
public nonisolated(unsafe) let kCGImageSourceCreateThumbnailWithTransform: CFString = ""
public nonisolated(unsafe) let kCGImageSourceThumbnailMaxPixelSize: CFString = ""
