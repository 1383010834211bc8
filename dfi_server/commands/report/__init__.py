"""The page that `dfi report` writes: what was found out of an edit, its pictures, its charts, and the HTML around."""
