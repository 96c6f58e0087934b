// What Foundation adds to Objective-C's key-value observing in Swift on Apple's systems alone (CoreVideo.swift says why it is here).
import Foundation

public final class NSKeyValueObservation {}
public struct NSKeyValueObservingOptions: OptionSet, Sendable {
    public let rawValue: Int
    public init(rawValue: Int) { self.rawValue = rawValue }
    public static let new = NSKeyValueObservingOptions(rawValue: 1)
    public static let initial = NSKeyValueObservingOptions(rawValue: 4)
}
public struct NSKeyValueObservedChange<Value> {}
public protocol KeyValueObserving {}
extension KeyValueObserving {
    public func observe<Value>(
        _ path: KeyPath<Self, Value>, options: NSKeyValueObservingOptions = [],
        changeHandler: @escaping @Sendable (Self, NSKeyValueObservedChange<Value>) -> Void
    ) -> NSKeyValueObservation { fatalError() }
}
extension NSObject: KeyValueObserving {}
