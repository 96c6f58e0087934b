// The declarations of Apple's PhotosUI for SwiftUI that apps/ios uses (SwiftUI.swift says what they lack).
import SwiftUI

public struct PhotosPickerItem: Hashable, Sendable {
    public func loadTransferable<T>(type: T.Type) async throws -> T? { fatalError() }
}
public struct PHPickerFilter: Sendable {
    public static let images = PHPickerFilter()
}
public struct PhotosPicker: Stub {
    public init(_ key: LocalizedStringKey, selection: Binding<PhotosPickerItem?>, matching filter: PHPickerFilter? = nil) {
        fatalError()
    }
}
