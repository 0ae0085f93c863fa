package emulator

import "reflect"

// fieldNames returns the exported fields of structs.
func fieldNames(structs ...any) []string {
	var names []string
	for _, s := range structs {
		for f := range reflect.TypeOf(s).Fields() {
			if f.IsExported() {
				names = append(names, f.Name)
			}
		}
	}
	return names
}
