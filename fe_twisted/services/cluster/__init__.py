"""What a primary does for its secondaries: opens mailboxes with the keys that they bring, and takes mail for any alias."""
