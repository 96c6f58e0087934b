import XCTest

@testable import LavitEdge

final class LiveTests: XCTestCase {
    private let ms = 1_000_000

    private func seen(_ label: String) -> Seen {
        Seen(answers: [Answer(index: 0, label: label, probability: 1)], preparing: 1, running: 2)
    }

    func testAnswersAndFramesPerSecond() throws {
        var live = Live()
        XCTAssertNil(live.framesPerSecond)
        for frame in 0..<100 { live.show(seen("\(frame)"), turn: live.turn, at: 40 * ms * frame) }
        XCTAssertEqual(live.seen, seen("99"))
        XCTAssertEqual(try XCTUnwrap(live.framesPerSecond), 25, accuracy: 1e-9)
        for frame in 0..<20 { live.show(seen("slow"), turn: live.turn, at: 4000 * ms + 100 * ms * frame) }
        XCTAssertEqual(try XCTUnwrap(live.framesPerSecond), 10, accuracy: 1e-9)  // of the last second alone
    }

    func testAProblemTakesTheLabelsAwayAndASoundFrameTheProblem() {
        var live = Live()
        live.show(seen("cat"), turn: 0, at: 0)
        live.fail("no camera", turn: 0)
        XCTAssertNil(live.seen)
        XCTAssertNil(live.framesPerSecond)
        XCTAssertEqual(live.problem, "no camera")
        live.show(seen("dog"), turn: 0, at: ms)
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
            live.show(seen("of another picture"), turn: turn, at: 0)
            live.fail("of another picture", turn: turn)
            XCTAssertEqual(live, before)
        }
    }

    func testPausedTheLastAnswerStays() {
        var live = Live()
        live.show(seen("cat"), turn: 0, at: 0)
        live.pause(true)
        XCTAssertTrue(live.isPaused)
        XCTAssertEqual(live.seen, seen("cat"))
        live.pause(false)
        XCTAssertFalse(live.isPaused)
        XCTAssertNil(live.seen)
    }

    func testAnotherCameraOrModelHasSeenNothingYet() {
        var live = Live()
        live.show(seen("cat"), turn: 0, at: 0)
        live.switchCamera()
        XCTAssertTrue(live.isFront)
        XCTAssertNil(live.seen)
        live.show(seen("cat"), turn: live.turn, at: 0)
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
