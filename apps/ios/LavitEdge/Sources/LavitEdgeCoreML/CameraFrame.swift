#if canImport(CoreVideo)
    import CoreVideo
    import LavitEdge

    /// A picture of the camera, upright and in BGRA. Hand it on only if nobody writes to its memory any more.
    public struct CameraFrame: @unchecked Sendable {
        private let buffer: CVPixelBuffer

        /// Of a buffer as `AVCaptureVideoDataOutput` gives it; its connection is to turn it upright.
        public init(_ buffer: CVPixelBuffer) {
            self.buffer = buffer
        }

        func withFrame<T>(_ work: (Frame) throws -> T) throws -> T {
            let format = CVPixelBufferGetPixelFormatType(buffer)
            guard format == kCVPixelFormatType_32BGRA else { throw CameraProblem.format(format) }
            CVPixelBufferLockBaseAddress(buffer, .readOnly)
            defer { CVPixelBufferUnlockBaseAddress(buffer, .readOnly) }
            let (width, height) = (CVPixelBufferGetWidth(buffer), CVPixelBufferGetHeight(buffer))
            let stride = CVPixelBufferGetBytesPerRow(buffer)
            guard let base = CVPixelBufferGetBaseAddress(buffer) else { throw UserError("the camera's picture has no memory") }
            let bytes = UnsafeRawBufferPointer(start: base, count: stride * height)
            let plane = Plane(bytes: bytes, rowStride: stride, pixelStride: 4)
            return try work(Frame(.bgra, width: width, height: height, planes: [plane]))
        }
    }
#endif
