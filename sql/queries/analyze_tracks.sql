-- Takes new statistics of the backend's track artists.
ANALYZE {backend}.compilation_track_artist
