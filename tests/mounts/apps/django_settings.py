from django.conf import settings

urlpatterns = []
settings.configure(ROOT_URLCONF="django_settings", SECRET_KEY="for-tests-only", ALLOWED_HOSTS=["*"], USE_TZ=True)
