#if canImport(CryptoKit)
    import CryptoKit
#else
    import COpenSSL
#endif

/// SHA-256 of bytes, 64 hexadecimal digits in lower case: by CryptoKit, and on Linux, which has none, by OpenSSL.
public func sha256(_ bytes: [UInt8]) -> String {
    #if canImport(CryptoKit)
        let digest = Array(SHA256.hash(data: bytes))
    #else
        var digest = [UInt8](repeating: 0, count: 32)
        let done = EVP_Digest(bytes, bytes.count, &digest, nil, EVP_sha256(), nil)
        precondition(done == 1, "OpenSSL has no SHA-256")
    #endif
    return digest.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
}
