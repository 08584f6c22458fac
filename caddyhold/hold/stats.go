package hold

import (
	"errors"

	"github.com/caddyhold/caddyhold/caddyhold/atcr"
	"github.com/caddyhold/caddyhold/caddyhold/pds"
)

// count adds to the push and pull counts of a repository, as of now.
func (h *Hold) count(tx *pds.Tx, owner, repository string, private bool, n tallies) error {
	stats, err := loadStats(tx, owner, repository, private)
	if err != nil {
		return err
	}
	now := h.timestamp()
	stats.PushCount += n.Pushes
	stats.PullCount += n.Pulls
	stats.UpdatedAt = now
	if n.Pushes > 0 {
		stats.LastPush = &now
	}
	if n.Pulls > 0 {
		stats.LastPull = &now
	}
	return saveStats(tx, stats, private)
}

// moveCounts moves a manifest's part of a repository's counts to the public or the private
// ones. Where nothing public is left the record goes, since its name has become private too.
func (h *Hold) moveCounts(tx *pds.Tx, owner, repository string, private bool, n tallies) error {
	from, err := loadStats(tx, owner, repository, !private)
	if err != nil {
		return err
	}
	to, err := loadStats(tx, owner, repository, private)
	if err != nil {
		return err
	}
	from.PushCount, from.PullCount = max(0, from.PushCount-n.Pushes), max(0, from.PullCount-n.Pulls)
	to.PushCount, to.PullCount = to.PushCount+n.Pushes, to.PullCount+n.Pulls
	to.LastPush, to.LastPull = later(to.LastPush, from.LastPush), later(to.LastPull, from.LastPull)
	from.UpdatedAt, to.UpdatedAt = h.timestamp(), h.timestamp()
	if err := saveStats(tx, to, private); err != nil {
		return err
	}
	if from.PushCount+from.PullCount == 0 {
		return deleteStats(tx, owner, repository, !private)
	}
	return saveStats(tx, from, !private)
}

// later compares times as records carry them.
func later(a, b *string) *string {
	if a == nil || b != nil && *a < *b {
		return b
	}
	return a
}

// loadStats returns the counts of a repository: its stats record, or, for private
// manifests, an entry of the same shape in the index. Where there is none they are zero.
func loadStats(tx *pds.Tx, owner, repository string, private bool) (*atcr.Stats, error) {
	path := atcr.StatsPath(owner, repository)
	stats := &atcr.Stats{OwnerDID: owner, Repository: repository}
	stored, err := statsAt(tx, path, private)
	if err != nil || stored == nil {
		return stats, err
	}
	return stats, wrap(atcr.Decode(stored, stats), "reading "+path)
}

// statsAt returns nil where nothing has been counted yet.
func statsAt(tx *pds.Tx, path string, private bool) ([]byte, error) {
	if private {
		return tx.Bolt().Bucket(privateStatsBucket).Get([]byte(path)), nil
	}
	stored, err := tx.Get(path)
	if errors.Is(err, pds.ErrRecordNotFound) {
		return nil, nil
	}
	return stored.Value, err
}

func saveStats(tx *pds.Tx, stats *atcr.Stats, private bool) error {
	path := atcr.StatsPath(stats.OwnerDID, stats.Repository)
	if !private {
		stored, err := statsAt(tx, path, false)
		if err != nil {
			return err
		}
		return put(tx, path, stored, stats)
	}
	value, err := atcr.Encode(stats)
	if err != nil {
		return err
	}
	return tx.Bolt().Bucket(privateStatsBucket).Put([]byte(path), value)
}

func deleteStats(tx *pds.Tx, owner, repository string, private bool) error {
	path := atcr.StatsPath(owner, repository)
	if private {
		return tx.Bolt().Bucket(privateStatsBucket).Delete([]byte(path))
	}
	return tx.Delete(path)
}
