"""Files: reading what users give and writing what they get. Nothing here knows any astronomy."""
