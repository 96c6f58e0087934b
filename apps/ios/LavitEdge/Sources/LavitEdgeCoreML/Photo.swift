#if canImport(ImageIO)
    import CoreGraphics
    import Foundation
    import ImageIO
    import LavitEdge

    /// A picked photo: for the screen, and for the model.
    public struct Photo: @unchecked Sendable {  // a CGImage never changes
        /// Larger photos are shrunk by ImageIO first; 48 million pixels would take 340 MB.
        public static let largestSide = 4096

        /// For the screen.
        public let image: CGImage
        /// For the model.
        public let picture: Picture

        /// Decodes a photo: upright, sRGB, transparent pixels over white.
        ///
        /// - Throws: ``UserError`` for what is no picture.
        public init(_ data: Data) throws {
            let options: [CFString: Any] = [
                kCGImageSourceCreateThumbnailFromImageAlways: true,
                kCGImageSourceCreateThumbnailWithTransform: true,
                kCGImageSourceThumbnailMaxPixelSize: Self.largestSide,
            ]
            guard let source = CGImageSourceCreateWithData(data as CFData, nil),
                let image = CGImageSourceCreateThumbnailAtIndex(source, 0, options as CFDictionary)
            else { throw UserError("this is no picture that can be decoded") }
            let (width, height) = (image.width, image.height)
            var pixels = [UInt8](repeating: 255, count: 4 * width * height)
            let drawn = pixels.withUnsafeMutableBytes { bytes in
                guard let space = CGColorSpace(name: CGColorSpace.sRGB),
                    let context = CGContext(
                        data: bytes.baseAddress, width: width, height: height, bitsPerComponent: 8, bytesPerRow: 4 * width,
                        space: space, bitmapInfo: CGImageAlphaInfo.noneSkipLast.rawValue)
                else { return false }
                context.draw(image, in: CGRect(x: 0, y: 0, width: width, height: height))
                return true
            }
            var colours: [UInt8] = []
            colours.reserveCapacity(3 * width * height)
            for pixel in stride(from: 0, to: pixels.count, by: 4) { colours += pixels[pixel..<pixel + 3] }
            guard drawn, let picture = Picture(width: width, height: height, pixels: colours) else {
                throw UserError("no memory for a picture of \(width) x \(height) pixels")
            }
            (self.image, self.picture) = (image, picture)
        }
    }
#endif
