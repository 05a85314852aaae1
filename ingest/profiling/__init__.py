"""Where the loader's time goes, what limits it, what to change, and what that would give.

profile.py      the whole profile: measured, concluded, advised
result.py       what to measure, and what came of it
measure.py      all measurements in turn
stages.py       what each stage costs by itself, and what a codec can give at most
throughput.py   images/s of whole streams, of other loaders, and of TensorFlow taking batches
repack.py       a sample packed otherwise, for predictions and for their proof
advice.py       from measurements to a verdict and to advice: pure functions
text_report.py  a profile as text
html_report.py  a profile as a page for browsers
"""

from ingest.profiling import html_report, text_report
from ingest.profiling.profile import profile
from ingest.profiling.result import Consumer, Profile, ProfileOptions

__all__ = ["Consumer", "Profile", "ProfileOptions", "html_report", "profile", "text_report"]
