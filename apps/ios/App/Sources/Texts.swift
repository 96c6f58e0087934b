import Foundation

/// A line of the package, in the language of the person where the catalogue has it (Localizable.xcstrings), else in English.
func translated(_ line: String) -> String {
    Bundle.main.localizedString(forKey: line, value: nil, table: nil)
}
