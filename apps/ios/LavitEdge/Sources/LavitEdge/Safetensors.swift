/// The tensors of a safetensors file: 8 bytes, little-endian, the length of a JSON header; the header; the data.
struct Safetensors {
    struct Tensor {
        let dtype: String
        let shape: [Int]
        let bytes: ArraySlice<UInt8>
    }

    private(set) var tensors: [String: Tensor] = [:]
    let metadata: JSON?

    /// - Throws: ``UserError`` for a file that is damaged, or whose tensors overlap or leave bytes over.
    init(_ file: [UInt8], source: String) throws {
        let damaged = UserError("\(source) is damaged")
        guard file.count >= 8 else { throw damaged }
        let length = file[..<8].reversed().reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
        guard length <= file.count - 8 else { throw damaged }
        let header = try JSONReader.read(Array(file[8..<8 + Int(length)]), source: "\(source)'s header")
        guard case .object(let fields) = header else { throw damaged }
        metadata = fields["__metadata__"]
        let data = file[(8 + Int(length))...]
        var parts: [Range<Int>] = []
        for (name, facts) in fields where name != "__metadata__" {
            let (shape, offsets) = (facts["shape"]?.array?.map(\.int), facts["data_offsets"]?.array?.map(\.int))
            guard let dtype = facts["dtype"]?.string, let shape, let offsets, offsets.count == 2,
                let from = offsets[0], let to = offsets[1], 0 <= from, from <= to, to <= data.count
            else { throw damaged }
            var size = dtype == "F32" ? 4 : 1  // of other types none is used
            for side in shape {
                guard let side, 0...data.count ~= side else { throw damaged }
                let (product, overflow) = size.multipliedReportingOverflow(by: side)
                guard !overflow else { throw damaged }
                size = product
            }
            guard size == to - from else { throw damaged }
            parts.append(from..<to)
            tensors[name] = Tensor(dtype: dtype, shape: shape.compactMap { $0 }, bytes: data.dropFirst(from).prefix(to - from))
        }
        parts.sort { ($0.lowerBound, $0.upperBound) < ($1.lowerBound, $1.upperBound) }
        guard zip([0] + parts.map(\.upperBound), parts.map(\.lowerBound) + [data.count]).allSatisfy(==) else { throw damaged }
    }

    /// Takes a tensor out; a side of nil may be any.
    mutating func take(_ name: String, dtype: String, shape: [Int?]) -> Tensor? {
        guard let tensor = tensors.removeValue(forKey: name), tensor.dtype == dtype, tensor.shape.count == shape.count else {
            return nil
        }
        return zip(shape, tensor.shape).allSatisfy { $0 == nil || $0 == $1 } ? tensor : nil
    }
}
