import Foundation

/// A model that is ready: Core ML's, or a stand-in for it.
public protocol Model {
    /// Puts a picture of the contract's size where the model reads its input.
    func setInput(_ picture: Picture) throws
    /// Runs the model and gives its logits.
    func run() throws -> [Float]
    /// The classes that the model names by itself; nil if it names none.
    var labels: [String]? { get }
}

extension Model {
    /// None.
    public var labels: [String]? { nil }
}

/// What was checked, whether it passed, and what was found.
public struct Check: Equatable, Sendable {
    /// Of the picture, and of what was checked.
    public let name: String
    /// Whether it is within what is allowed.
    public let passed: Bool
    /// For people.
    public let found: String
}

/// What the golden pictures say of a model on this device: the checks and tolerances of lavit_edge/selftest.py.
public struct SelfTest: Equatable, Sendable {
    static let greyLevels = 1  // PIL's antialiased filters, the reference, and others' are at most that far apart

    /// Two for each golden picture, in order, one of them all, and one of the classes if the model names any.
    public private(set) var checks: [Check] = []
    /// Golden pictures that were run.
    public private(set) var pictures = 0
    /// Golden pictures with the expected label first.
    public private(set) var sameTop1 = 0
    /// Largest difference of a logit, in steps; nil if logits are not finite.
    public private(set) var worst: Double? = 0

    /// Whether all checks passed.
    public var passed: Bool { checks.allSatisfy(\.passed) }

    /// What failed first; nil if nothing did.
    public var failure: String? {
        checks.first { !$0.passed }.map { "\($0.name): \($0.found)" }
    }

    /// Runs the golden pictures of a payload through this machine's preprocessing and a model. Throws what the model throws.
    public init(_ payload: Payload, model: some Model) throws {
        let converter = FrameConverter(contract: payload.contract)
        var close = 0
        for golden in payload.golden {
            let picture = try converter.input(from: golden.picture)
            checks.append(Self.checkInput(golden, picture))
            try model.setInput(picture)
            let logits = try model.run()
            checks.append(Self.checkLogits(golden, logits, payload))
            pictures += 1
            sameTop1 += topIndices(logits, count: 1) == topIndices(golden.logits, count: 1) ? 1 : 0
            let steps = Self.steps(golden, logits, payload)
            worst = worst.flatMap { worst in steps.map { max(worst, $0.max() ?? 0) } }
            close += steps.map { ($0.max() ?? 0) <= payload.closeSteps } ?? false ? 1 : 0
        }
        // a fault in a layer shows on each picture
        let found = String(
            format: "%d of %d pictures within %g steps, %d needed", close, pictures, payload.closeSteps, payload.closePictures)
        checks.append(Check(name: "close pictures", passed: close >= payload.closePictures, found: found))
        if let labels = model.labels {  // Vision shows these
            let same = labels == payload.contract.labels
            let found = same ? "classes are the contract's labels" : "its classes are not the contract's labels in their order"
            checks.append(Check(name: "labels", passed: same, found: found))
        }
    }

    /// Compares 256 pixels of a preprocessed picture with what the exporter had there.
    static func checkInput(_ golden: Golden, _ picture: Picture) -> Check {
        let differences = zip(picture.sample(), golden.sample).map { abs(Int($0) - Int($1)) }
        let worst = differences.max() ?? 0
        var found = "at most \(worst) of 255 off"
        if worst > greyLevels, let at = differences.firstIndex(of: worst) {
            let (row, column) = (at / 3 / Picture.grid, at / 3 % Picture.grid)
            let place = [row, column].map { (2 * $0 + 1) * picture.width / (2 * Picture.grid) }
            found += " (row \(place[0]), column \(place[1]), \(["R", "G", "B"][at % 3]))"
            found += ", \(greyLevels) allowed: resizing or channel order differs"
        }
        return Check(name: "\(golden.name): preprocessing", passed: worst <= greyLevels, found: found)
    }

    /// Compares logits, less their mean, with those of the program that the artifact was made from; and the first label, where the
    /// program's leads by more than the tolerance.
    static func checkLogits(_ golden: Golden, _ logits: [Float], _ payload: Payload) -> Check {
        let name = "\(golden.name): logits"
        guard let steps = steps(golden, logits, payload), let worst = steps.max(), let label = steps.firstIndex(of: worst) else {
            let found = "\(logits.count) values for \(golden.logits.count) labels, or values that are not finite"
            return Check(name: name, passed: false, found: found)
        }
        let labels = payload.contract.labels
        let found = String(format: "at most %.2f steps off, %g allowed", worst, golden.tolerance)
        guard worst <= golden.tolerance else {
            return Check(name: name, passed: false, found: "\(found): label '\(labels[label])' differs most")
        }
        let (first, expected) = (topIndices(logits, count: 1)[0], topIndices(golden.logits, count: 1)[0])
        let lead = (Double(golden.logits[expected]) - Double(golden.logits[first])) / payload.step
        guard lead <= golden.tolerance else {
            let other = String(format: "by %.2f steps", lead)
            let wrong = "label '\(labels[first])' is first, not '\(labels[expected])' \(other)"
            return Check(name: name, passed: false, found: "\(found): \(wrong)")
        }
        return Check(name: name, passed: true, found: found)
    }

    /// By how many steps each logit differs, both less their mean; nil if there is not one finite logit for each label.
    private static func steps(_ golden: Golden, _ logits: [Float], _ payload: Payload) -> [Double]? {
        guard logits.count == golden.logits.count, logits.allSatisfy(\.isFinite) else { return nil }
        return zip(centred(logits), centred(golden.logits)).map { abs($0 - $1) / payload.step }
    }

    private static func centred(_ logits: [Float]) -> [Double] {
        let mean = logits.reduce(0) { $0 + Double($1) } / Double(logits.count)
        return logits.map { Double($0) - mean }
    }

    /// The field `self_test` of a report.
    ///
    /// - Parameter sealProblem: what ``Seal/problem(name:)`` found, which comes first.
    func report(sealProblem: String?, forced: Bool) -> JSON {
        let failure = sealProblem ?? failure
        return [
            "passed": .bool(failure == nil),
            "pictures": .int(pictures),
            "same_top1": .int(sameTop1),
            "worst_millisteps": JSON(worst.map { Int(min(($0 * 1000).rounded(), 0x1p53 - 1)) }),
            "forced": .bool(forced && failure != nil),
            "detail": JSON(failure.map { oneLine($0, most: 500) }),
        ]
    }
}
