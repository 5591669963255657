package convert

import "github.com/opencontainers/go-digest"

// Progress is told what a conversion does. Its methods may be called from several
// goroutines at the same time.
type Progress interface {
	// Layer is called when the conversion of a layer starts, or writing its seed.
	Layer(info LayerInfo) LayerProgress
	// Note is called with something that the user should know and that is no error.
	Note(text string)
}

// A LayerInfo describes a layer that is to be converted.
type LayerInfo struct {
	Number, Total int // counted from one, over the distinct layers of all manifests
	Digest        digest.Digest
	Size          int64 // of the blob, or of the files that the seed is made of
	Seed          bool  // it is the seed that is written
}

// LayerProgress follows one layer. Done or Failed is called last, and once.
type LayerProgress interface {
	Read(n int64) // that many more bytes of the blob, or of files, were read
	Done(report LayerReport)
	Failed(err error)
}

type noProgress struct{}

func (noProgress) Layer(LayerInfo) LayerProgress { return noProgress{} }
func (noProgress) Note(string)                   {}
func (noProgress) Read(int64)                    {}
func (noProgress) Done(LayerReport)              {}
func (noProgress) Failed(error)                  {}
