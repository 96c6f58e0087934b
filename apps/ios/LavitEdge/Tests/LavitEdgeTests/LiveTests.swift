import XCTest

@testable import LavitEdge

final class LiveTests: XCTestCase {
    private let ms = 1_000_000

    private func seen(_ label: String, _ probability: Double = 1) -> Seen {
        Seen([probability, 1 - probability], best: 0, labels: [label, "other"], preparing: 1, running: 2)
    }

    private func contract(_ threshold: Double = 0) throws -> InputContract {
        let decision: [String: JSON] = ["temperature": 1, "threshold": .double(threshold)]
        return try InputContract(
            json: contractText(["format": "lavit_edge.contract/2", "labels": ["cat", "dog"]].merging(decision) { $1 }))
    }

    func testAnswersAndFramesPerSecond() throws {
        var live = Live()
        XCTAssertNil(live.framesPerSecond)
        let contract = try contract()
        for frame in 0..<100 { live.show(seen("cat"), of: contract, turn: live.turn, at: 40 * ms * frame) }
        XCTAssertEqual(live.seen?.probabilities, [1, 0])
        XCTAssertEqual(live.seen?.answers.map(\.label), ["cat", "dog"])
        XCTAssertEqual(try XCTUnwrap(live.framesPerSecond), 25, accuracy: 1e-9)
        for frame in 0..<20 { live.show(seen("cat"), of: contract, turn: live.turn, at: 4000 * ms + 100 * ms * frame) }
        XCTAssertEqual(try XCTUnwrap(live.framesPerSecond), 10, accuracy: 1e-9)  // of the last second alone
    }

    func testAProblemTakesTheLabelsAwayAndASoundFrameTheProblem() {
        var live = Live()
        live.show(seen("cat"), turn: 0)
        live.fail(UserError("no camera"), turn: 0)
        XCTAssertNil(live.seen)
        XCTAssertNil(live.framesPerSecond)
        XCTAssertEqual(live.problem, "no camera")
        live.show(seen("dog"), turn: 0)
        XCTAssertEqual(live.seen, seen("dog"))
        XCTAssertNil(live.problem)
    }

    func testAnAnswerThatComesTooLateIsDropped() {
        let changes: [(inout Live) -> Void] = [{ $0.reset() }, { $0.switchCamera() }, { $0.pause(true) }, { $0.pause(false) }]
        for change in changes {
            var live = Live()
            let turn = live.turn
            change(&live)
            let before = live
            live.show(seen("of another picture"), turn: turn)
            live.fail(CameraProblem.inUse, turn: turn)
            XCTAssertEqual(live, before)
        }
    }

    func testALiveViewIsSteadyAndSaysWhenItIsNotSure() throws {
        let (contract, slow) = (try contract(0.6), 40 * ms)
        var live = Live()
        for frame in 0..<50 { live.show(seen("cat", frame % 2 == 0 ? 0.9 : 0.4), of: contract, turn: 0, at: slow * frame) }
        XCTAssertEqual(live.seen?.best?.label, "cat")
        for frame in 50..<100 { live.show(seen("cat", 0.5), of: contract, turn: 0, at: slow * frame) }
        XCTAssertEqual(live.seen?.best?.label, "cat")  // it fell by less than the margin
        for frame in 100..<200 { live.show(seen("cat", 0.45), of: contract, turn: 0, at: slow * frame) }
        XCTAssertNil(live.seen?.best)
        XCTAssertEqual(live.seen?.answers.map(\.label), ["dog", "cat"])
        live.reset()
        live.show(seen("cat", 0.7), of: contract, turn: live.turn, at: 0)  // what another model said is not averaged
        XCTAssertEqual(try XCTUnwrap(live.seen?.answers[0].probability), 0.7, accuracy: 1e-12)
    }

    func testALeftCameraHasNoTurn() {
        let changes: [(inout Live) -> Void] = [{ $0.switchCamera() }, { $0.pause(true) }, { $0.pause(false) }]
        for change in changes {
            var live = Live()
            let camera = live.source
            XCTAssertEqual(live.turn(of: camera), live.turn)
            change(&live)
            XCTAssertNil(live.turn(of: camera))
            XCTAssertEqual(live.turn(of: live.source), live.turn)
        }
        var live = Live()
        live.reset()  // another model, the same camera
        XCTAssertEqual(live.turn(of: 0), live.turn)
    }

    func testADeniedCameraCanBeAllowed() {
        var live = Live()
        live.fail(CameraProblem.denied, turn: 0)
        XCTAssertTrue(live.isDenied)
        live.fail(CameraProblem.restricted, turn: 0)
        XCTAssertFalse(live.isDenied)
        live.fail(CameraProblem.denied, turn: 0)
        live.reset()
        XCTAssertFalse(live.isDenied)
    }

    func testPausedTheLastAnswerStays() {
        var live = Live()
        live.show(seen("cat"), turn: 0)
        live.pause(true)
        XCTAssertTrue(live.isPaused)
        XCTAssertEqual(live.seen, seen("cat"))
        live.pause(false)
        XCTAssertFalse(live.isPaused)
        XCTAssertNil(live.seen)
    }

    func testAnotherCameraOrModelHasSeenNothingYet() {
        var live = Live()
        live.show(seen("cat"), turn: 0)
        live.switchCamera()
        XCTAssertTrue(live.isFront)
        XCTAssertNil(live.seen)
        live.show(seen("cat"), turn: live.turn)
        live.reset()
        XCTAssertNil(live.seen)
        XCTAssertTrue(live.isFront)
    }

    func testEveryProblemOfTheCameraIsALineOfItsOwn() {
        let problems: [CameraProblem] = [
            .denied, .restricted, .missing(front: true), .missing(front: false), .inBackground, .inUse, .besideAnotherApp,
            .tooHot, .failed("a\nb"), .format(0x3432_3066), .format(7),
        ]
        let texts = problems.map(\.description)
        XCTAssertEqual(Set(texts).count, problems.count)
        XCTAssertTrue(texts.allSatisfy { !$0.contains("\n") })
        XCTAssertEqual(texts[9], "the camera gives pictures of format '420f', which this app does not read")
        XCTAssertTrue(texts[10].contains("format '7'"))
        XCTAssertTrue(texts[0].contains("Settings"))
    }
}
