import XCTest

@testable import LavitEdge

final class PaceTests: XCTestCase {
    private let ms = 1_000_000

    /// How many of a camera's frames, 30 a second with jitter, are taken in ten seconds.
    private func taken(_ pace: inout Pace, from start: Int, hot: Bool, every interval: Int = 33) -> Int {
        (0..<10_000 / interval).filter { frame in
            pace.takes(at: (start + interval * frame + frame * 7 % 5) * ms, hot: hot)
        }.count
    }

    func testHotTheRateIsHalved() {
        for interval in [16, 33, 100] {
            var pace = Pace()
            let cool = taken(&pace, from: 0, hot: false, every: interval)
            XCTAssertEqual(cool, 10_000 / interval)
            XCTAssertEqual(Double(taken(&pace, from: 10_000, hot: true, every: interval)), Double(cool) / 2, accuracy: 2)
            XCTAssertEqual(taken(&pace, from: 20_000, hot: false, every: interval), cool)
            XCTAssertEqual(Double(taken(&pace, from: 30_000, hot: true, every: interval)), Double(cool) / 2, accuracy: 3)
        }
    }

    func testHotFromTheStart() {
        var pace = Pace()
        XCTAssertEqual(Double(taken(&pace, from: 0, hot: true)), 10_000 / 66, accuracy: 2)
    }

    /// A model slower than the camera: what is left out comes at the camera's rate, and must not be made up for.
    func testASlowModel() {
        var pace = Pace()
        var now = 0
        func second(hot: Bool) -> Int {
            let end = now + 10_000
            var count = 0
            while now < end {
                if pace.takes(at: now * ms, hot: hot) {
                    count += 1
                    now += 200
                } else {
                    now += 33
                }
            }
            return count
        }
        XCTAssertEqual(second(hot: false), 50)
        XCTAssertEqual(Double(second(hot: true)), 27, accuracy: 2)
    }
}
