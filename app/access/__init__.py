"""Who may come in: users, keys, sessions, and for how long nobody may try again."""
