/// Camera frames to the model's input, by the contract. Keeps its buffers, so that a frame of the size of the last one allocates nothing
/// as long as the input of the last one is no longer held.
public final class FrameConverter {
    /// What an input must be.
    public let contract: InputContract

    private var upright = Picture()
    private var square = Picture()
    private var resizer: Resizer?

    /// A converter for models of that contract.
    public init(contract: InputContract) {
        self.contract = contract
    }

    /// The contract's square of a frame, upright.
    ///
    /// - Throws: ``UserError`` for a frame so long and thin that it cannot be cropped.
    public func input(from frame: Frame) throws -> Picture {
        frame.toRGB(into: &upright)
        return try input(from: upright)
    }

    /// The contract's square of a picture. Throws as ``input(from:)-frame``.
    public func input(from picture: Picture) throws -> Picture {
        if resizer?.width != picture.width || resizer?.height != picture.height {
            resizer = try Resizer(width: picture.width, height: picture.height, contract: contract)
        }
        resizer?.resize(picture, into: &square)
        return square
    }
}
