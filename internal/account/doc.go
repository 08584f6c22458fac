// Package account gives tests ATProto accounts: a stand-in for the PLC directory, hosts of did:web documents, and keys that
// sign service tokens as a user's PDS does, or as a forger would.
package account
