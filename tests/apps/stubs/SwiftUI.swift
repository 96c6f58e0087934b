// The declarations of Apple's SwiftUI that apps/ios uses (CoreVideo.swift says why). SwiftUI has no Objective-C, so that nothing
// outside Apple's SDK names what is in it.
import CoreGraphics
@_exported import Foundation
@_exported import Observation
@_exported import UIKit

@MainActor public protocol View {
    associatedtype Body: View
    @ViewBuilder var body: Body { get }
}
extension Never: View {
    public var body: Never { return fatalError() }
}
/// Whatever a view or a modifier gives here.
public struct Some: View {
    public var body: Never { return fatalError() }
}
@resultBuilder public enum ViewBuilder {
    public static func buildExpression<V: View>(_ view: V) -> Some { fatalError() }
    public static func buildBlock(_ views: Some...) -> Some { fatalError() }
    public static func buildOptional(_ view: Some?) -> Some { fatalError() }
    public static func buildEither(first: Some) -> Some { fatalError() }
    public static func buildEither(second: Some) -> Some { fatalError() }
}

@MainActor public protocol Scene {
    associatedtype Body: Scene
    var body: Body { get }
}
extension Never: Scene {}
public struct WindowGroup: Scene {
    public init(@ViewBuilder content: () -> Some) { fatalError() }
    public var body: Never { return fatalError() }
}
@MainActor public protocol App {
    associatedtype Body: Scene
    var body: Body { get }
    init()
}
extension App {
    public static func main() { fatalError() }
}

@propertyWrapper public struct State<Value> {
    public init(wrappedValue: Value) { fatalError() }
    public var wrappedValue: Value {
        get { fatalError() }
        nonmutating set { fatalError() }
    }
    public var projectedValue: Binding<Value> { fatalError() }
}
extension State {
    public init() where Value: ExpressibleByNilLiteral { fatalError() }
}
public enum ScenePhase: Equatable, Sendable { case background, inactive, active }
public enum UserInterfaceSizeClass: Equatable, Sendable { case compact, regular }
public struct EnvironmentValues {
    public var verticalSizeClass: UserInterfaceSizeClass? { fatalError() }
    public var scenePhase: ScenePhase { fatalError() }
}
@propertyWrapper public struct Environment<Value> {
    public init(_ type: Value.Type) where Value: AnyObject, Value: Observable { fatalError() }
    public init(_ path: KeyPath<EnvironmentValues, Value>) { fatalError() }
    public var wrappedValue: Value { fatalError() }
}
@propertyWrapper public struct Binding<Value> {
    public init(get: @escaping () -> Value, set: @escaping (Value) -> Void) { fatalError() }
    public var wrappedValue: Value {
        get { fatalError() }
        nonmutating set { fatalError() }
    }
}
@dynamicMemberLookup @propertyWrapper public struct Bindable<Value> {
    public init(wrappedValue: Value) where Value: Observable { fatalError() }
    public var wrappedValue: Value
    public var projectedValue: Bindable<Value> { fatalError() }
    public subscript<Member>(dynamicMember path: ReferenceWritableKeyPath<Value, Member>) -> Binding<Member> { fatalError() }
}

public protocol Stub: View where Body == Never {}
extension Stub {
    public var body: Never { return fatalError() }
}
public struct Color: Sendable {
    public static let red = Color()
    public static let primary = Color()
    public static let secondary = Color()
}
public struct Font: Sendable {
    public static let caption = Font()
    public static let headline = Font()
}
public enum HorizontalAlignment { case leading, center, trailing }

/// A text of the app's catalogue, which a literal is unless it is asked for otherwise.
public struct LocalizedStringKey: ExpressibleByStringInterpolation {
    public struct StringInterpolation: StringInterpolationProtocol {
        public init(literalCapacity: Int, interpolationCount: Int) {}
        public mutating func appendLiteral(_ literal: String) {}
        public mutating func appendInterpolation(_ text: String) {}
        public mutating func appendInterpolation(_ number: Int) {}
    }
    public init(stringLiteral value: String) {}
    public init(stringInterpolation: StringInterpolation) {}
}
public struct Text: Stub {
    public init(_ key: LocalizedStringKey) { fatalError() }
    @_disfavoredOverload public init<S: StringProtocol>(_ text: S) { fatalError() }
    public init<F: FormatStyle>(_ value: F.FormatInput, format: F) where F.FormatInput: Equatable, F.FormatOutput == String { fatalError() }
}
public struct EmptyView: Stub {
    public init() {}
}
public struct Image: Stub {
    public init(decorative image: CGImage, scale: CGFloat) { fatalError() }
    public func resizable() -> Image { fatalError() }
}
public struct Label: Stub {
    public init(_ key: LocalizedStringKey, systemImage: String) { fatalError() }
    @_disfavoredOverload public init<S: StringProtocol>(_ text: S, systemImage: String) { fatalError() }
}
public struct Spacer: Stub {
    public init() {}
}
public struct ProgressView: Stub {
    public init(_ key: LocalizedStringKey) { fatalError() }
    @_disfavoredOverload public init<S: StringProtocol>(_ text: S) { fatalError() }
}
public struct Button: Stub {
    public init(_ key: LocalizedStringKey, action: @escaping @MainActor () -> Void) { fatalError() }
}
public struct ShareLink: Stub {
    public init(_ key: LocalizedStringKey, item: URL) { fatalError() }
}
public struct Stepper: Stub {
    public init<V: Strideable>(_ key: LocalizedStringKey, value: Binding<V>, in range: ClosedRange<V>, step: V.Stride = 1) { fatalError() }
}
public struct Picker<Selection: Hashable>: Stub {
    public init(_ key: LocalizedStringKey, selection: Binding<Selection>, @ViewBuilder content: () -> Some) { fatalError() }
}
public struct Toggle: Stub {
    public init(_ key: LocalizedStringKey, isOn: Binding<Bool>) { fatalError() }
}
public struct Link: Stub {
    public init(_ key: LocalizedStringKey, destination: URL) { fatalError() }
}
public struct ScrollView: Stub {
    public init(@ViewBuilder content: () -> Some) { fatalError() }
}
public protocol Layout {}
public struct HStackLayout: Layout {
    public init() {}
}
public struct VStackLayout: Layout {
    public init() {}
}
public struct AnyLayout: Layout {
    public init<L: Layout>(_ layout: L) { fatalError() }
    @MainActor public func callAsFunction(@ViewBuilder _ content: () -> Some) -> Some { fatalError() }
}
public struct AccessibilityChildBehavior: Sendable {
    public static let combine = AccessibilityChildBehavior()
}
public struct ButtonToggleStyle: Sendable {
    public static let button = ButtonToggleStyle()
}
public struct ForEach<Data: RandomAccessCollection>: Stub {
    public init<ID: Hashable>(_ data: Data, id: KeyPath<Data.Element, ID>, @ViewBuilder content: @escaping (Data.Element) -> Some) { fatalError() }
    public init(_ data: Data, @ViewBuilder content: @escaping (Data.Element) -> Some) where Data.Element: Identifiable { fatalError() }
}
public struct TabView: Stub {
    public init(@ViewBuilder content: () -> Some) { fatalError() }
}
public struct Form: Stub {
    public init(@ViewBuilder content: () -> Some) { fatalError() }
}
public struct List: Stub {
    public init(@ViewBuilder content: () -> Some) { fatalError() }
}
public struct HStack: Stub {
    public init(@ViewBuilder content: () -> Some) { fatalError() }
}
public struct VStack: Stub {
    public init(alignment: HorizontalAlignment = .center, @ViewBuilder content: () -> Some) { fatalError() }
}
extension View {
    public func padding() -> Some { fatalError() }
    public func font(_ font: Font?) -> Some { fatalError() }
    public func foregroundStyle(_ style: Color) -> Some { fatalError() }
    public func tag<V: Hashable>(_ tag: V) -> Some { fatalError() }
    public func disabled(_ disabled: Bool) -> Some { fatalError() }
    public func tabItem(@ViewBuilder _ label: () -> Some) -> Some { fatalError() }
    public func environment<T: AnyObject & Observable>(_ object: T?) -> Some { fatalError() }
    public func task(priority: TaskPriority = .userInitiated, _ action: sending @escaping @isolated(any) () async -> Void) -> Some { fatalError() }
    public func task<T: Equatable>(
        id: T, priority: TaskPriority = .userInitiated, _ action: sending @escaping @isolated(any) () async -> Void
    ) -> Some { fatalError() }
    public func onChange<V: Equatable>(of value: V, initial: Bool = false, _ action: @escaping () -> Void) -> Some { fatalError() }
    public func accessibilityElement(children: AccessibilityChildBehavior) -> Some { fatalError() }
    public func toggleStyle(_ style: ButtonToggleStyle) -> Some { fatalError() }
    public func sheet(isPresented: Binding<Bool>, @ViewBuilder content: @escaping () -> Some) -> Some { fatalError() }
    public func scaledToFit() -> Some { fatalError() }
    public func onDisappear(perform action: (() -> Void)? = nil) -> Some { fatalError() }
}

public struct UIViewRepresentableContext<Representable> {}
@MainActor public protocol UIViewRepresentable: View where Body == Never {
    associatedtype UIViewType: UIView
    typealias Context = UIViewRepresentableContext<Self>
    func makeUIView(context: Context) -> UIViewType
    func updateUIView(_ view: UIViewType, context: Context)
}
extension UIViewRepresentable {
    public var body: Never { return fatalError() }
}
