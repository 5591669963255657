// Package routing finds nodes that have something, and tells of what this one has, over the
// Delegated Routing V1 HTTP API (https://specs.ipfs.tech/routing/http-routing-v1/): a Client of it,
// and a small Server that keeps in memory what it was told, so that a cluster needs one address.
//
// Finding is GET /routing/v1/providers/CID of that specification, which any server of it answers.
// For telling there is no current specification: PUT /routing/v1/providers/ with records that are
// signed by the provider's key is the historic one (https://specs.ipfs.tech/ipips/ipip-0526/), and
// what boxo has. Servers without it can be asked, and not told.
//
// A record of a provider proves who made it, and not that the provider has anything, or is where it
// says: whoever connects finds out. So what a hostile server, or one that was lied to, can do is to
// have nodes dial addresses: package embedded bounds which, and how many.
//
// # Limits and concurrency
//
// A Table holds a bounded number of records for each provider and in all, each for a bounded time.
// When all places are taken, the provider whose records end first makes room: the table forgets, and
// honest nodes tell it again. All methods of all types here may be called concurrently; nothing here
// starts goroutines.
package routing
