"""Files become clean documents and a ledger: parts made side by side, then put together in one order."""
