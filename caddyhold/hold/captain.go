package hold

import (
	"context"
	"errors"
	"fmt"

	"github.com/caddyhold/caddyhold/caddyhold/atcr"
	"github.com/caddyhold/caddyhold/caddyhold/pds"
)

// timeFormat is how records carry times: RFC 3339 in UTC with milliseconds.
const timeFormat = "2006-01-02T15:04:05.000Z"

func (h *Hold) timestamp() string { return h.now().UTC().Format(timeFormat) }

// SyncRecords writes the captain record and the captain's crew record as this
// configuration has them: one commit, and none where nothing changed. With a new owner
// the crew record of the old one goes.
func (h *Hold) SyncRecords(ctx context.Context) error {
	_, err := h.Repo().Update(ctx, func(tx *pds.Tx) error {
		former, err := h.syncCaptain(tx)
		if err != nil {
			return err
		}
		if former != "" && former != h.config.Owner {
			if err := deleteCrew(tx, former); err != nil {
				return err
			}
		}
		return h.syncCaptainsCrew(tx)
	})
	return wrap(err, "writing the captain record")
}

// syncCaptain writes the captain record and returns the owner that it named before.
func (h *Hold) syncCaptain(tx *pds.Tx) (former string, err error) {
	captain := atcr.Captain{DeployedAt: h.timestamp()}
	stored, err := tx.Get(atcr.CaptainPath)
	switch {
	case err == nil:
		if err := atcr.Decode(stored.Value, &captain); err != nil {
			return "", fmt.Errorf("reading %s: %w", atcr.CaptainPath, err)
		}
		former = captain.Owner
	case !errors.Is(err, pds.ErrRecordNotFound):
		return "", err
	}

	captain.Owner = h.config.Owner
	captain.Public = h.config.Policy.Public
	captain.AllowAllCrew = h.config.Policy.AllowAllCrew
	captain.Region = nil
	if h.config.Region != "" {
		captain.Region = &h.config.Region
	}
	return former, put(tx, atcr.CaptainPath, stored.Value, &captain)
}

// syncCaptainsCrew gives the owner every permission, in a crew record of their own.
func (h *Hold) syncCaptainsCrew(tx *pds.Tx) error {
	path := crewPath(h.config.Owner)
	crew := atcr.Crew{AddedAt: h.timestamp()}
	stored, err := tx.Get(path)
	switch {
	case err == nil:
		if err := atcr.Decode(stored.Value, &crew); err != nil {
			return fmt.Errorf("reading %s: %w", path, err)
		}
	case !errors.Is(err, pds.ErrRecordNotFound):
		return err
	}
	crew.Member = h.config.Owner
	crew.Role = "admin"
	crew.Permissions = []string{atcr.PermissionRead, atcr.PermissionWrite, atcr.PermissionAdmin}
	return put(tx, path, stored.Value, &crew)
}

// put writes a record and keeps the unknown fields of the one stored there, if any.
func put(tx *pds.Tx, path string, stored []byte, r atcr.Record) error {
	encode := func() ([]byte, error) { return atcr.Encode(r) }
	if stored != nil {
		encode = func() ([]byte, error) { return atcr.Update(stored, r) }
	}
	value, err := encode()
	if err != nil {
		return fmt.Errorf("encoding %s: %w", path, err)
	}
	_, err = tx.Put(path, value)
	return err
}
