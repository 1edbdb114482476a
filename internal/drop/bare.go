package drop

import "github.com/gobtrfs/gobtrfs/internal/ondisk"

// IsBare tells whether a leaf can hold no file extents because of its place: its keys are from first on, and before the next leaf's first key. Then it
// refers to nothing, and dies unread. Names, for one, fill such leaves: a directory's lie side by side, its DIR_INDEX items behind its DIR_ITEMs.
//
// This trusts that the keys of a tree are in order, as every search in it does. Where they are not, extents stay behind that nobody refers to, which is
// what check is for; nothing that lives is lost.
func IsBare(first, next ondisk.Key) bool {
	if first.Type == ondisk.TypeExtentData || !first.Less(next) {
		return false
	}
	place := ondisk.Key{Objectid: first.Objectid, Type: ondisk.TypeExtentData} // of the first extent that could follow
	if first.Type > ondisk.TypeExtentData {
		if place.Objectid++; place.Objectid == 0 {
			return true
		}
	}
	return !place.Less(next)
}
