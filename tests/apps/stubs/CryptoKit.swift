// The declarations of Apple's CryptoKit that apps/ios uses (CoreVideo.swift says why). It has no Objective-C.
public struct SHA256Digest: Sequence {
    public func makeIterator() -> Array<UInt8>.Iterator { fatalError() }
}
public enum SHA256 {
    public static func hash<D: Collection<UInt8>>(data: D) -> SHA256Digest { fatalError() }
}
