-- Whether each value of each row is one that FOCUS 1.3 allows. Rows without a value are the business of nullability.sql.
--
-- {table} is the table's full id. Parameters: @org STRING, @first DATE, @last DATE (both days included).
-- A row of the answer: name of a check that failed, how many rows failed it, three of them by their key. What a check
-- means, how much it weighs and which rule of FOCUS it stands for is in checks.yml.
SELECT name, COUNT(*) AS failed, ARRAY_AGG(example ORDER BY example LIMIT 3) AS examples
FROM (
  SELECT
    TO_JSON_STRING(STRUCT(
      x_pipeline_id AS pipeline, x_credential_id AS credential, x_pipeline_run_date AS day, BillingAccountId AS account,
      SubAccountId AS sub_account, ResourceId AS resource, SkuPriceId AS sku_price, ChargeCategory AS category
    )) AS example,
    [
      IF(CapacityReservationStatus NOT IN ('Used', 'Unused'), 'CapacityReservationStatus.allowed', NULL),
      IF(ChargeCategory NOT IN ('Usage', 'Purchase', 'Tax', 'Credit', 'Adjustment'), 'ChargeCategory.allowed', NULL),
      IF(ChargeClass != 'Correction', 'ChargeClass.allowed', NULL),
      IF(ChargeFrequency NOT IN ('One-Time', 'Recurring', 'Usage-Based'), 'ChargeFrequency.allowed', NULL),
      IF(ChargeCategory = 'Purchase' AND ChargeFrequency = 'Usage-Based', 'ChargeFrequency.purchase', NULL),
      IF(CommitmentDiscountCategory NOT IN ('Spend', 'Usage'), 'CommitmentDiscountCategory.allowed', NULL),
      IF(CommitmentDiscountStatus NOT IN ('Used', 'Unused'), 'CommitmentDiscountStatus.allowed', NULL),
      IF(PricingCategory NOT IN ('Standard', 'Dynamic', 'Committed', 'Other'), 'PricingCategory.allowed', NULL),
      IF(
        ChargeCategory = 'Usage' AND CommitmentDiscountStatus IS NOT NULL AND PricingCategory != 'Committed',
        'PricingCategory.committed', NULL
      ),
      IF(
        ServiceCategory NOT IN (
          'AI and Machine Learning', 'Analytics', 'Business Applications', 'Compute', 'Databases', 'Developer Tools',
          'Identity', 'Integration', 'Internet of Things', 'Management and Governance', 'Media', 'Migration', 'Mobile',
          'Multicloud', 'Networking', 'Security', 'Storage', 'Web', 'Other'
        ),
        'ServiceCategory.allowed', NULL
      ),
      IF(
        CASE ServiceCategory
          WHEN 'AI and Machine Learning' THEN ServiceSubcategory NOT IN (
            'AI Platforms', 'Bots', 'Generative AI', 'Machine Learning', 'Natural Language Processing',
            'Other (AI and Machine Learning)'
          )
          WHEN 'Analytics' THEN ServiceSubcategory NOT IN (
            'Analytics Platforms', 'Business Intelligence', 'Data Processing', 'Search', 'Streaming Analytics',
            'Other (Analytics)'
          )
          WHEN 'Business Applications' THEN ServiceSubcategory NOT IN (
            'Productivity and Collaboration', 'Other (Business Applications)'
          )
          WHEN 'Compute' THEN ServiceSubcategory NOT IN (
            'Containers', 'End User Computing', 'Quantum Compute', 'Serverless Compute', 'Virtual Machines',
            'Other (Compute)'
          )
          WHEN 'Databases' THEN ServiceSubcategory NOT IN (
            'Caching', 'Data Warehouses', 'Ledger Databases', 'NoSQL Databases', 'Relational Databases',
            'Time Series Databases', 'Other (Databases)'
          )
          WHEN 'Developer Tools' THEN ServiceSubcategory NOT IN (
            'Developer Platforms', 'Continuous Integration and Deployment', 'Development Environments',
            'Source Code Management', 'Quality Assurance', 'Other (Developer Tools)'
          )
          WHEN 'Identity' THEN ServiceSubcategory NOT IN ('Identity and Access Management', 'Other (Identity)')
          WHEN 'Integration' THEN ServiceSubcategory NOT IN (
            'API Management', 'Messaging', 'Workflow Orchestration', 'Other (Integration)'
          )
          WHEN 'Internet of Things' THEN ServiceSubcategory NOT IN (
            'IoT Analytics', 'IoT Platforms', 'Other (Internet of Things)'
          )
          WHEN 'Management and Governance' THEN ServiceSubcategory NOT IN (
            'Architecture', 'Compliance', 'Cost Management', 'Data Governance', 'Disaster Recovery',
            'Endpoint Management', 'Observability', 'Support', 'Other (Management and Governance)'
          )
          WHEN 'Media' THEN ServiceSubcategory NOT IN (
            'Content Creation', 'Gaming', 'Media Streaming', 'Mixed Reality', 'Other (Media)'
          )
          WHEN 'Migration' THEN ServiceSubcategory NOT IN ('Data Migration', 'Resource Migration', 'Other (Migration)')
          WHEN 'Mobile' THEN ServiceSubcategory NOT IN ('Other (Mobile)')
          WHEN 'Multicloud' THEN ServiceSubcategory NOT IN ('Multicloud Integration', 'Other (Multicloud)')
          WHEN 'Networking' THEN ServiceSubcategory NOT IN (
            'Application Networking', 'Content Delivery', 'Network Connectivity', 'Network Infrastructure',
            'Network Routing', 'Network Security', 'Other (Networking)'
          )
          WHEN 'Security' THEN ServiceSubcategory NOT IN (
            'Secret Management', 'Security Posture Management', 'Threat Detection and Response', 'Other (Security)'
          )
          WHEN 'Storage' THEN ServiceSubcategory NOT IN (
            'Backup Storage', 'Block Storage', 'File Storage', 'Object Storage', 'Storage Platforms',
            'Other (Storage)'
          )
          WHEN 'Web' THEN ServiceSubcategory NOT IN ('Application Platforms', 'Other (Web)')
          WHEN 'Other' THEN ServiceSubcategory NOT IN ('Other (Other)')
          ELSE FALSE -- ServiceCategory.allowed says so
        END,
        'ServiceSubcategory.allowed', NULL
      ),
      IF(
        -- ISO 4217, currencies of countries in force on 2026-01-01 (python package iso4217; a test compares)
        BillingCurrency NOT IN (
          'AED', 'AFN', 'ALL', 'AMD', 'AOA', 'ARS', 'AUD', 'AWG', 'AZN', 'BAM', 'BBD', 'BDT', 'BHD', 'BIF', 'BMD',
          'BND', 'BOB', 'BRL', 'BSD', 'BTN', 'BWP', 'BYN', 'BZD', 'CAD', 'CDF', 'CHF', 'CLP', 'CNY', 'COP', 'CRC',
          'CUP', 'CVE', 'CZK', 'DJF', 'DKK', 'DOP', 'DZD', 'EGP', 'ERN', 'ETB', 'EUR', 'FJD', 'FKP', 'GBP', 'GEL',
          'GHS', 'GIP', 'GMD', 'GNF', 'GTQ', 'GYD', 'HKD', 'HNL', 'HTG', 'HUF', 'IDR', 'ILS', 'INR', 'IQD', 'IRR',
          'ISK', 'JMD', 'JOD', 'JPY', 'KES', 'KGS', 'KHR', 'KMF', 'KPW', 'KRW', 'KWD', 'KYD', 'KZT', 'LAK', 'LBP',
          'LKR', 'LRD', 'LSL', 'LYD', 'MAD', 'MDL', 'MGA', 'MKD', 'MMK', 'MNT', 'MOP', 'MRU', 'MUR', 'MVR', 'MWK',
          'MXN', 'MYR', 'MZN', 'NAD', 'NGN', 'NIO', 'NOK', 'NPR', 'NZD', 'OMR', 'PAB', 'PEN', 'PGK', 'PHP', 'PKR',
          'PLN', 'PYG', 'QAR', 'RON', 'RSD', 'RUB', 'RWF', 'SAR', 'SBD', 'SCR', 'SDG', 'SEK', 'SGD', 'SHP', 'SLE',
          'SOS', 'SRD', 'SSP', 'STN', 'SVC', 'SYP', 'SZL', 'THB', 'TJS', 'TMT', 'TND', 'TOP', 'TRY', 'TTD', 'TWD',
          'TZS', 'UAH', 'UGX', 'USD', 'UYU', 'UZS', 'VED', 'VES', 'VND', 'VUV', 'WST', 'XAF', 'XCD', 'XCG',
          'XOF', 'XPF', 'YER', 'ZAR', 'ZMW', 'ZWG'
        ),
        'BillingCurrency.iso', NULL
      ),
      IF(
        REGEXP_CONTAINS(
          TO_JSON_STRING([
            AllocatedMethodId, AllocatedResourceId, AllocatedResourceName, AvailabilityZone, BillingAccountId,
            BillingAccountName, BillingAccountType, BillingCurrency, CapacityReservationId, CapacityReservationStatus,
            ChargeCategory, ChargeClass, ChargeDescription, ChargeFrequency, CommitmentDiscountCategory,
            CommitmentDiscountId, CommitmentDiscountName, CommitmentDiscountStatus, CommitmentDiscountType,
            CommitmentDiscountUnit, ConsumedUnit, HostProviderName, InvoiceId, InvoiceIssuerName, PricingCategory,
            PricingCurrency, PricingUnit, ProviderName, PublisherName, RegionId, RegionName, ResourceId, ResourceName,
            ResourceType, ServiceCategory, ServiceName, ServiceProviderName, ServiceSubcategory, SkuId, SkuMeter,
            SkuPriceId, SubAccountId, SubAccountName, SubAccountType
          ]),
          r'(?i)[\[,]"(?:\s*|null|n/?a|not applicable)"[,\]]' -- a quote within a value is escaped there
        ),
        'text.placeholder', NULL
      ),
      IF(COALESCE(x_FocusVersion, '') NOT IN ('1.3', '1.4'), 'x_FocusVersion.known', NULL)
    ] AS names
  FROM `{table}`
  WHERE x_org_slug = @org AND x_pipeline_run_date BETWEEN @first AND @last
)
CROSS JOIN UNNEST(names) AS name
WHERE name IS NOT NULL
GROUP BY name

